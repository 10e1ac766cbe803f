"""One caller over WebRTC: a peer connection, the connection that it carries, and the end of both.

Needs aiortc.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from aioice import stun
from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCSessionDescription,
)
from aiortc.rtp import AnyRtcpPacket, RtcpByePacket

from duologue.server.realtime.carrier import Carried, Mail, Unread, watch
from duologue.server.realtime.events import ClientError, Event, error_event, new_id
from duologue.server.realtime.limits import CallLimits, RealtimeLimits
from duologue.server.realtime.offers import Offer
from duologue.server.realtime.responses import Emit
from duologue.server.realtime.rtp_audio import Gate, Microphone
from duologue.server.session_log import short
from duologue.server.waiting import within

logger = logging.getLogger(__name__)

CHANNEL = "oai-events"
_BUFFER = "_RTCRtpReceiver__jitter_buffer"  # where a receiver of aiortc has what `Gate` replaces
_LARGEST = 2**18  # bytes of a message, as the answer tells the caller
_BUFFERED = 2**19  # bytes that are on their way to the caller; the next waits
_CHANNELS = 8  # that a caller may open before it is hung up; one of them is heard
_UNREAD = 2**22  # bytes of unfinished messages
_GOODBYE = 1.0  # seconds for the last events to leave
_CLOSING = 5.0  # seconds for the peer connection to close


Make = Callable[[Emit, RealtimeLimits], "tuple[Carried, MediaStreamTrack]"]


class Call:
    """A call.

    Args:
        make: makes what is carried, and the track on which it speaks; it may raise BusyError.
        told: what tells the client of an error.
    """

    def __init__(
        self,
        offer: Offer,
        make: Make,
        *,
        limits: RealtimeLimits,
        bounds: CallLimits,
        told: Callable[[ClientError], Event] = error_event,
    ):
        loop = asyncio.get_running_loop()
        self.id = new_id("rtc")
        self._offer, self._bounds, self._clock, self._told = offer, bounds, loop.time, told
        limits = replace(limits, event=min(limits.event, _LARGEST))
        self._connection, self._speaker = make(self._emit, limits)
        self._mail = Mail(self._send, limits)
        self._mail.name = short(self._connection.id)
        self._unread = Unread(self._connection.receive, limits)
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self._track: MediaStreamTrack | None = None
        self._channel: RTCDataChannel | None = None
        self._channels = 0
        self._here, self._gone = asyncio.Event(), asyncio.Event()
        self._peer.on("connectionstatechange", self._changed)
        self._peer.on("datachannel", self._opened)
        self._peer.on("track", self._heard)

    async def answer(self) -> str:
        """The SDP that answers the offer.

        Raises:
            ClientError: there is no answer to it.
        """
        try:
            return await within(self._answer(), self._bounds.answering)
        except ClientError:
            raise
        except Exception as error:  # whatever a library makes of what a stranger wrote
            logger.debug("an offer cannot be answered", exc_info=error)
            raise ClientError(
                f"The SDP offer cannot be answered ({type(error).__name__}).", code="invalid_offer", param="sdp"
            ) from error

    async def _answer(self) -> str:
        peer = self._peer
        transceiver = peer.addTransceiver(self._speaker, direction="sendrecv")
        known = RTCRtpReceiver.getCapabilities("audio")
        codecs = known.codecs if known else []
        transceiver.setCodecPreferences([codec for codec in codecs if codec.mimeType.lower() == "audio/opus"])
        _prepare(transceiver.receiver, Gate(self._clock))
        await peer.setRemoteDescription(RTCSessionDescription(self._offer.sdp, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        answer = peer.localDescription.sdp
        if "a=candidate:" not in answer:
            raise ClientError(
                "This server has no address that can be called over WebRTC: it is connected to no network.",
                code="no_address",
                kind="server_error",
            )
        return answer

    async def run(self) -> None:
        """Carries the call to its end."""
        tasks: list[asyncio.Task[None]] = []
        try:
            await within(self._until_here(), self._bounds.connecting)
            tasks = [asyncio.create_task(each) for each in self._work()]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
                    task.result()
        except asyncio.TimeoutError:
            logger.info("a caller over WebRTC never connected")
        finally:
            self._connection.close()  # before what may take long
            await _stop(tasks)
            with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
                await within(self._say_goodbye(), _GOODBYE)
            await self.close()

    def hang_up(self) -> None:
        self._gone.set()

    async def close(self) -> None:
        """Gives back all that it holds."""
        self._connection.close()
        self._gone.set()
        self._speaker.stop()
        try:
            await within(self._peer.close(), _CLOSING)
        except asyncio.TimeoutError:
            logger.warning("a peer connection does not close")
        except Exception as error:  # of one that was never whole, for what a stranger offered
            logger.debug("a peer connection does not close in order", exc_info=error)

    def _work(self) -> Iterable[Any]:
        """What ends the call when it ends."""
        yield self._until_gone()
        yield watch(self._connection, self._mail)
        if self._offer.events:
            yield self._mail.run()
            yield self._unread.run()
        if self._track is not None:
            yield self._listen(self._track)
        if not self._offer.listens:
            yield self._play_to_nobody()

    async def _listen(self, track: MediaStreamTrack) -> None:
        await Microphone(self._connection).run(track)
        await self._gone.wait()

    async def _play_to_nobody(self) -> None:
        while True:
            await self._speaker.recv()

    async def _until_here(self) -> None:
        """Waits until the caller is connected, and its data channel is open where it has one."""
        here, gone = asyncio.ensure_future(self._here.wait()), asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({here, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            here.cancel()
            gone.cancel()
        if self._gone.is_set():
            raise asyncio.TimeoutError

    async def _until_gone(self) -> None:
        """Waits until the caller has hung up, or nothing has come for too long."""
        received, since = -1, self._clock()
        while not self._gone.is_set():
            count, now = await self._received(), self._clock()
            if count != received:
                received, since = count, now
            elif now >= since + self._bounds.vanished / 4:
                if await self._answers(since + self._bounds.vanished - now):
                    since = self._clock()
                elif await self._received() == received:
                    logger.info("nothing comes from a caller any more; its call is over")
                    return
            sctp = self._peer.sctp
            if sctp is not None and getattr(sctp, "_advertised_rwnd", 0) < -_UNREAD:
                logger.warning("a caller sends more than it may; its call is over")
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._gone.wait(), min(1.0, self._bounds.vanished / 4))

    async def _answers(self, seconds: float) -> bool:
        """Whether a caller that sends nothing answers when asked. aioice asks so too (RFC 7675), but for half a minute
        before it gives up."""
        ice = self._peer.getTransceivers()[0].receiver.transport.transport._connection
        for pair in list(ice._nominated.values()):
            key = str(ice.remote_password).encode()
            question = ice.build_request(pair, nominate=False)
            asked = pair.protocol.request(question, pair.remote_addr, integrity_key=key)
            with contextlib.suppress(stun.TransactionError, asyncio.TimeoutError):
                await within(asked, max(0.05, seconds))
                return True
        return False

    async def _received(self) -> int:
        """Packets that came."""
        report = await self._peer.getStats()
        return sum(each.packetsReceived for each in report.values() if each.type == "transport")

    # -- what the peer connection tells -------------------------------------------------------------------------------

    def _changed(self) -> None:
        state = self._peer.connectionState
        if state in ("failed", "closed"):
            self._gone.set()
        elif state == "connected" and not self._offer.events:
            self._begin()

    def _begin(self) -> None:
        if not self._here.is_set():
            self._connection.begin()  # before the caller's first event
            self._here.set()

    def _heard(self, track: MediaStreamTrack) -> None:
        self._track = track

    def _opened(self, channel: RTCDataChannel) -> None:
        self._channels += 1
        if channel.label == CHANNEL and self._channel is None:
            self._channel = channel
            channel.on("message", self._came)
            channel.on("close", self._gone.set)
            return self._begin()
        channel.close()
        if self._channels >= _CHANNELS:
            self._gone.set()

    # -- events -------------------------------------------------------------------------------------------------------

    def _came(self, raw: str | bytes) -> None:
        if not self._unread.put(raw):
            logger.warning("%s: a caller sends more than it may; its call is over", self._mail.name)
            self._gone.set()

    def _emit(self, event: Event) -> None:
        if not self._offer.events:
            return
        text, most = json.dumps(event), min(_LARGEST, self._offer.largest or _LARGEST)
        if len(text) > most and event["type"] == "conversation.item.retrieved":
            for part in event["item"].get("content", []):
                part.pop("audio", None)
            text = json.dumps(event)
        if len(text) > most:
            message = f"'{event['type']}' has {len(text)} bytes; the data channel takes {most}."
            text = json.dumps(self._told(ClientError(message, code="event_too_large")))
        self._mail.put(text)

    async def _send(self, text: str) -> None:
        channel = self._channel
        if channel is None:
            raise ConnectionError("there is no data channel")
        while channel.bufferedAmount > _BUFFERED and channel.readyState == "open":
            await asyncio.sleep(0.02)
        if channel.readyState != "open":
            raise ConnectionError("the data channel is closed")
        try:
            channel.send(text)
        except ValueError as error:
            raise ConnectionError(f"{error}") from error

    async def _say_goodbye(self) -> None:
        """Sends what waits."""
        channel = self._channel
        if channel is None or self._mail.slow:
            return
        await self._mail.flush()
        while channel.bufferedAmount and channel.readyState == "open":
            await asyncio.sleep(0.02)


def _prepare(receiver: RTCRtpReceiver, gate: Gate) -> None:
    """Has a receiver pass on what comes at once, and go on listening where the caller's sound ends for a while."""
    handle = receiver._handle_rtcp_packet

    async def report(packet: AnyRtcpPacket) -> None:
        if not isinstance(packet, RtcpByePacket):  # a browser says so too when it is muted
            await handle(packet)

    vars(receiver)["_handle_rtcp_packet"] = report
    if hasattr(receiver, _BUFFER):
        setattr(receiver, _BUFFER, gate)


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
