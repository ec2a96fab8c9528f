"""One file for each way in which users keep their silhouettes; each turns it into a store."""
