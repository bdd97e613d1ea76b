"""Tables: their rows, whatever their format, and the pictures that some hold themselves."""
