"""Real Kafka and Redis without Docker, for the demo, the tests and `adaptd up`.

Reading order: `services` (what is used and why), `kafka` and `valkey` (how each is started),
`server` (what can be done to one), `process` and `guard` (why nothing is ever left behind).
"""
