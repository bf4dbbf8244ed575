"""The web app: an engine in the browser of a phone or tablet."""
