"""A seeded world of users and videos whose preferences are known, and the log that a product there would write.

``watchnext simulate`` writes such a log; a test compares a model with :meth:`data.simulator.world.World.truth`.
"""
