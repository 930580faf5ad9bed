"""What can be wrong with data that are open."""
