"""Child processes of the service that inspect uploads and train, apart from its memory, cores and crashes."""
