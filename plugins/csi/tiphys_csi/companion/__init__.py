"""One process for all that a CSI driver needs beside it: provisioner, attacher, resizer; no sidecars."""
