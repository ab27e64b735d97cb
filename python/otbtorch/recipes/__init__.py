"""Recipes: the commands that make the demonstration data and train the shipped models."""
