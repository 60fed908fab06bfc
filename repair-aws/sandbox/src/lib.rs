//! S3, Athena and Glue on loopback, in process, with faults on demand: for tests and trials.
