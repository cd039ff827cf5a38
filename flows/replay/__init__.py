"""Loopback twins of the venues, fed by a tape."""
