#!/usr/bin/python3
# examples/embed.py: a training inside a Python program, by PyGObject: python3-gi, gir1.2-gstreamer-1.0, and for
# --preview a video sink (gstreamer1.0-x).
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Trains a LoRA on a folder of captioned pictures and prints how it goes.

Ctrl-C ends it after the step that runs and saves adapter and checkpoint; --resume goes on from there. A second
Ctrl-C stops at once. --preview shows in a window what the prompt gives meanwhile; closing it is as Ctrl-C."""
import argparse
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst

LINE = ("fluxdatasetsrc name=dataset ! fluximagedec ! fluximagecrop name=crop ! fluxvaeenc name=vae "
        "! fluxembed name=embed ! fluxtrainsink name=train")
PREVIEW = (" fluxsamplersrc name=preview ! capsfilter name=picture ! queue ! videoconvert ! videoscale "
           "! autovideosink name=window sync=false")


def build(options):
    pipeline = Gst.parse_launch(LINE + (PREVIEW if options.preview else ""))
    side = options.size
    settings = {
        "dataset": {"location": options.folder},
        "crop": {"width": side, "height": side},
        "vae": {"model": options.model, "cache-location": options.output + ".latents"},
        "embed": {"text-model": options.model, "location": options.output + ".texts.safetensors",
                  "max-sequence-length": options.tokens},
        "train": {"model": options.model, "location": options.output, "max-steps": options.steps,
                  "learning-rate": options.learning_rate},
    }
    if options.resume:
        settings["train"]["resume-from"] = options.resume
    if options.preview:
        settings["preview"] = {"prompt": options.preview, "every-steps": options.every,
                               "max-sequence-length": options.tokens}
        settings["picture"] = {"caps": Gst.Caps.from_string(f"video/x-raw,width={side},height={side}")}
    for name, properties in settings.items():
        element = pipeline.get_by_name(name)
        for key, value in properties.items():
            element.set_property(key, value)
    return pipeline


class Training:
    def __init__(self, pipeline):
        self.pipeline, self.loop = pipeline, GLib.MainLoop()
        self.window = pipeline.get_by_name("window")
        self.interrupts, self.began, self.closed, self.failed = 0, False, False, False
        bus = pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::element", self.on_element)
        bus.connect("message::error", self.on_error)
        bus.connect("message::warning", self.on_warning)
        bus.connect("message::eos", lambda bus, message: self.loop.quit())
        GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal.SIGINT, self.on_interrupt)

    def run(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        self.pipeline.set_state(Gst.State.NULL)
        return 1 if self.failed else 0

    def on_element(self, bus, message):
        s = message.get_structure()
        if s.get_name() == "flux-step":
            self.began = True
            step, last = s.get_uint64("step")[1], s.get_uint64("max-steps")[1]
            print(f"step {step}/{last}  loss {s.get_double('loss')[1]:.4f}", flush=True)
        elif s.get_name() == "flux-checkpoint":
            print("saved", s.get_string("location"), flush=True)
            if self.closed and s.get_boolean("final")[1]:
                self.loop.quit()  # a window that is closed says no EOS

    def on_warning(self, bus, message):
        print("warning:", message.parse_warning()[0].message, file=sys.stderr)

    def on_error(self, bus, message):
        if self.began and self.window and message.src.has_as_ancestor(self.window):
            self.closed = True
            self.on_interrupt()
            return
        if self.closed and message.src.get_name() == "preview":
            return  # it has no window to go to
        if not self.failed:  # the first one has the cause
            print("error:", message.parse_error()[0].message, file=sys.stderr)
        self.failed = True
        self.loop.quit()

    def on_interrupt(self):
        self.interrupts += 1
        if self.interrupts == 1:
            print("Saving; Ctrl-C again stops at once", flush=True)
            self.pipeline.send_event(Gst.Event.new_eos())
        else:
            self.loop.quit()
        return GLib.SOURCE_CONTINUE


def positive(kind):
    def parse(text):
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value
    parse.__name__ = f"positive {kind.__name__}"  # as argparse calls it
    return parse


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="pictures with captions")
    parser.add_argument("output", help="the LoRA, a .safetensors file")
    parser.add_argument("--model", default="FLUX.1-dev", help="a folder, or hf://user/name")
    parser.add_argument("--steps", type=positive(int), default=700)
    parser.add_argument("--size", type=positive(int), default=512, help="width and height in pixels")
    parser.add_argument("--tokens", type=positive(int), default=77, help="of text")
    parser.add_argument("--learning-rate", type=positive(float), default=1e-4)
    parser.add_argument("--preview", metavar="PROMPT", help="show what it gives in a window")
    parser.add_argument("--every", type=positive(int), default=50, help="steps between previews")
    parser.add_argument("--resume", metavar="FOLDER", help="go on from this checkpoint")
    options = parser.parse_args()
    Gst.init(None)
    try:
        pipeline = build(options)
    except GLib.Error as error:
        sys.exit(f"error: {error.message}")
    return Training(pipeline).run()


if __name__ == "__main__":
    sys.exit(main())
