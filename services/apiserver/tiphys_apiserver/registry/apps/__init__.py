"""Rules of the kinds of the apps group."""
