//! Configurations, good and bad, with their exact messages.
