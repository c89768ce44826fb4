from boresight.sae.codes import SparseCodes as SparseCodes
