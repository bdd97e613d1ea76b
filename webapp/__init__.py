"""The web page. It imports ``cascade`` alone."""
