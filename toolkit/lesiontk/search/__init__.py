"""The search of engines: spaces of recipes, figures of candidates, studies, and their winner."""
