//! What only shows when the parts work together.
