"""The generators of a bundle, with the quotas and deadlines of its configuration."""

from data.errors import BundleError
from data.features.request import RequestEncoder
from models.bundle import Bundle
from models.indexes import Indexes
from service.generators.co_watch import CoWatch
from service.generators.nearest import Nearest
from service.generators.protocol import Source
from service.generators.topic import Topic
from service.generators.trending import Trending


def load_sources(bundle: Bundle, features: RequestEncoder) -> tuple[Source, ...]:
    """Raises BundleError where an index is damaged or of another catalogue."""
    indexes, limits = Indexes.load(bundle.generators), bundle.config.generators
    videos = len(indexes.trending.scores)
    if videos != len(features.video_ids):
        raise BundleError(f"{bundle.generators} is of {videos} videos, the catalogue has {len(features.video_ids)}")
    topic = () if indexes.topic is None else ((Topic(indexes.topic), limits.topic),)
    pairs = (
        *topic,
        (CoWatch(indexes.co_watch), limits.co_watch),
        (Nearest(indexes.nearest), limits.nearest),
        (Trending(indexes.trending), limits.trending),
    )
    return tuple(Source(generator, limit.quota, limit.deadline_ms) for generator, limit in pairs)
