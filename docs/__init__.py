"""The pages for people, and what writes them."""
