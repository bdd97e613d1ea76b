"""The rules of the cascade: which pictures are routed, how classes are ordered, which answers are unsure."""
