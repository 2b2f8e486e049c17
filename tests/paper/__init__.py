"""One test per claim of the Raft paper and of Ongaro's dissertation; each names the section it checks."""
