"""People label answers: blinded sheets out, checked labels in."""
