"""Version of this package; hack/set-version writes it."""

VERSION = "0.1.0"
BUILD_DATE = "1970-01-01T00:00:00Z"
