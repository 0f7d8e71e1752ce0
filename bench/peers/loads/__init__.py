"""What loads a contestant: wrk, bulk transfers, idle clients."""
