"""What an own package gives polysafe."""
