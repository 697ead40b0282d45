"""A procedurally generated visual-reasoning world: rendered grids of coloured, numbered shapes."""
