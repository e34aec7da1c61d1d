"""A small RTSP camera on 127.0.0.1, by GStreamer: `rtsp_camera.py FOLDER PORT`.

It shows the files of the folder in the order of their names, 25 a second: 00000.h264 on, one H.264
picture each, or 00000.jpg on.

Needs GStreamer's RTSP server through `gi`, so it runs under the system's Python. It prints
`ready` when it listens.
"""

import argparse
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - the versions come first

H264 = "caps=video/x-h264,framerate=25/1,stream-format=byte-stream,alignment=au ! h264parse config-interval=-1 ! rtph264pay"  # noqa: E501
JPEG = "caps=image/jpeg,framerate=25/1 ! jpegparse ! rtpjpegpay"


def main() -> None:
    """Serve /live until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port")
    parser.add_argument("--credentials", help="USER:PASSWORD")
    parser.add_argument("--once", action="store_true", help="once to each client, no loop")
    options = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=options.port)
    factory = GstRtspServer.RTSPMediaFactory()
    suffix, rest = ("jpg", JPEG) if list(options.folder.glob("*.jpg")) else ("h264", H264)
    loop = "false" if options.once else "true"
    factory.set_launch(
        f"( multifilesrc location={options.folder}/%05d.{suffix} loop={loop} "
        f"{rest} name=pay0 pt=96 )"
    )
    factory.set_shared(not options.once)
    factory.connect("media-configure", give_times)
    if options.credentials:
        ask_for_credentials(server, factory, *options.credentials.split(":"))
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print("ready", flush=True)  # noqa: T201 - its parent waits for it
    GLib.MainLoop().run()


def give_times(_factory: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia) -> None:
    """Have pictures shown when they are decoded: the parser knows no other time of raw files."""

    def stamp(_pad: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        buffer = info.get_buffer()
        if buffer.pts == Gst.CLOCK_TIME_NONE:
            buffer.pts = buffer.dts
        return Gst.PadProbeReturn.OK

    payloader = media.get_element().get_by_name("pay0")
    payloader.get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, stamp)


def ask_for_credentials(
    server: GstRtspServer.RTSPServer,
    factory: GstRtspServer.RTSPMediaFactory,
    user: str,
    password: str,
) -> None:
    """Let nobody in but one user."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", user)
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role(user, "media.factory.access", True)
    permissions.add_permission_for_role(user, "media.factory.construct", True)
    factory.set_permissions(permissions)


if __name__ == "__main__":
    main()
