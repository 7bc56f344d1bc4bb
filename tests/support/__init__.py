"""What several tests share: real collectors, processes, exchanges and files to begin with."""
