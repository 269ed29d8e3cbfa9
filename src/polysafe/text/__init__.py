"""Text from outside made safe to show, and numbers as readers see them."""
