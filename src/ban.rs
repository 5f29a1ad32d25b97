//! Layer 1: the ban language: parse, print, lint.
