"""Recipes: a name -> a whole run (what learns, from what, how long). recipe.py says what one is; one file a recipe."""
