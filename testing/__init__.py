"""What tests, benchmarks and drivers share: small datasets, studies, servers, reference models."""
