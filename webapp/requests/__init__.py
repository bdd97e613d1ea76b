"""A request: who sent it, what it holds, and what is answered."""
