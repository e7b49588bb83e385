"""`amk tune`: searches the pass options of a model on the GPU at hand."""
