"""Real Kafka and Redis without Docker, for the demo, the tests and `adaptd up`.

Reading order: `services` (which services are used), `kafka` and `valkey` (how each is started;
`kafka_install`: where Kafka comes from), `server` (what can be done to one), `process` and `guard`
(why nothing is left behind), `folders`; `foreground` is `adaptd up`.
"""
