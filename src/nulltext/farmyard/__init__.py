"""The farmyard: a small drawn world, and the offline model that knows it."""
