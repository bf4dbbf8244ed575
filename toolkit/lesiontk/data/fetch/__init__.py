"""Downloads of the official data sets: resumable, hashed, unpacked safely."""
