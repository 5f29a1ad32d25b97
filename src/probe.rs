//! Layer 3: HTTP fetches that become observations.
