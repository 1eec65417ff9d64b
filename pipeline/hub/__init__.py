"""Model and data hubs: what is fetched from them, complete and verified, and the command `fetch` ahead of a run."""
