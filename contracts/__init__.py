"""What a table is, what a name means and what can go wrong; imports nothing of ours."""
