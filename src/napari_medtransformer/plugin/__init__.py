"""The napari side: readers, writers, sample data and docks. Importing it loads neither Qt nor torch."""

from napari_medtransformer.openmp import use_large_pages, wait_briefly

wait_briefly()
use_large_pages()
