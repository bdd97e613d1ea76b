"""Hostile pictures: what small files cost that were made to cost much."""
