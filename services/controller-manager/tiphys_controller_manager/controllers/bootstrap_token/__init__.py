"""Bootstrap tokens: expired ones are deleted, and cluster-info is signed with the others."""
