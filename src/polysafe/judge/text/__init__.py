"""What an answer is, told without a model: its language, its scripts, whether it is broken."""
