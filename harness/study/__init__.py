"""What is run for a table or a comparison, and what came of it."""
