"""What was found: data, summary and verdict. Nothing is drawn here."""
