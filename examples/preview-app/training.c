/* examples/preview-app/training.c: the pipeline. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "training.h"

#include <gst/app/gstappsink.h>
#include <gst/gst.h>
#include <gst/video/video.h>

struct _Training {
  GstElement *pipeline, *preview;
  const TrainingEvents *events;
  gpointer data;
  guint watch;
  gint64 first_time; /* microseconds: when first_step was done */
  guint64 first_step;
  GQueue described; /* GstStructure: flux-sample of pictures that did not come yet */
};

static const char *const LINE =
    "fluxdatasetsrc name=dataset ! fluximagedec ! fluximagecrop name=crop "
    "! fluxvaeenc name=vae ! fluxembed name=embed ! fluxtrainsink name=train "
    "fluxsamplersrc name=preview ! capsfilter name=size ! queue ! videoconvert "
    "! video/x-raw,format=RGB ! appsink name=pictures sync=false";

/* ---- what comes from it ---- */

static void
on_step (Training *self, const GstStructure *s)
{
  TrainingStep step = {.seconds_left = -1};
  gint64 now = g_get_monotonic_time ();

  gst_structure_get (s, "step", G_TYPE_UINT64, &step.step, "max-steps", G_TYPE_UINT64,
      &step.of, "loss", G_TYPE_DOUBLE, &step.loss, NULL);
  /* Pictures take their time too: by the clock, not by the message's step-time. */
  if (self->first_time == 0) {
    self->first_time = now;
    self->first_step = step.step;
  } else if (step.step > self->first_step) {
    step.seconds_left = (double)(now - self->first_time) / G_TIME_SPAN_SECOND /
                        (double)(step.step - self->first_step) *
                        (double)(step.of - step.step);
  }
  self->events->step (&step, self->data);
}

/* A buffer of the appsink; in its streaming thread. The picture travels over the bus, to
 * arrive in the main thread and in its order among the other messages. */
static GstFlowReturn
on_sample (GstAppSink *sink, gpointer pipeline)
{
  GstSample *sample = gst_app_sink_pull_sample (sink);
  GstVideoInfo info;
  GstVideoFrame frame;

  if (sample == NULL)
    return GST_FLOW_EOS;
  if (gst_video_info_from_caps (&info, gst_sample_get_caps (sample)) &&
      gst_video_frame_map (&frame, &info, gst_sample_get_buffer (sample), GST_MAP_READ)) {
    gsize stride = (gsize)GST_VIDEO_FRAME_PLANE_STRIDE (&frame, 0);
    int height = GST_VIDEO_FRAME_HEIGHT (&frame);
    GBytes *bytes =
        g_bytes_new (GST_VIDEO_FRAME_PLANE_DATA (&frame, 0), stride * (gsize)height);
    GdkTexture *texture = gdk_memory_texture_new (
        GST_VIDEO_FRAME_WIDTH (&frame), height, GDK_MEMORY_R8G8B8, bytes, stride);

    gst_element_post_message (
        pipeline, gst_message_new_application (GST_OBJECT (sink),
                      gst_structure_new ("picture", "frame", G_TYPE_UINT64,
                          GST_BUFFER_OFFSET (gst_sample_get_buffer (sample)), "texture",
                          GDK_TYPE_TEXTURE, texture, NULL)));
    g_object_unref (texture);
    g_bytes_unref (bytes);
    gst_video_frame_unmap (&frame);
  }
  gst_sample_unref (sample);
  return GST_FLOW_OK;
}

/* flux-sample says what a picture shows, before it is pushed. */
static GstStructure *
take_description (Training *self, guint64 frame)
{
  GstStructure *d;

  while ((d = g_queue_pop_head (&self->described)) != NULL) {
    guint64 number;

    if (gst_structure_get_uint64 (d, "frame", &number) && number == frame)
      break;
    gst_structure_free (d);
  }
  return d;
}

static void
on_picture (Training *self, const GstStructure *s)
{
  GdkTexture *texture = NULL;
  guint64 frame, step = 0;
  double scale = 1;
  GstStructure *d;

  gst_structure_get (
      s, "texture", GDK_TYPE_TEXTURE, &texture, "frame", G_TYPE_UINT64, &frame, NULL);
  d = take_description (self, frame);
  if (d != NULL) {
    gst_structure_get (
        d, "step", G_TYPE_UINT64, &step, "lora-scale", G_TYPE_DOUBLE, &scale, NULL);
    self->events->picture (
        texture, gst_structure_get_string (d, "prompt"), step, scale, self->data);
    gst_structure_free (d);
  }
  g_object_unref (texture);
}

static void
on_progress (Training *self, GstMessage *message)
{
  GstProgressType type;
  g_autofree char *code = NULL, *text = NULL;

  gst_message_parse_progress (message, &type, &code, &text);
  /* Steps have a message of their own, and what is complete is no activity. */
  if (type != GST_PROGRESS_TYPE_ERROR && type != GST_PROGRESS_TYPE_COMPLETE &&
      g_strcmp0 (code, "train") != 0)
    self->events->activity (text, self->data);
}

static void
on_element (Training *self, const GstStructure *s)
{
  gboolean final = FALSE;

  if (gst_structure_has_name (s, "flux-step"))
    on_step (self, s);
  else if (gst_structure_has_name (s, "flux-sample"))
    g_queue_push_tail (&self->described, gst_structure_copy (s));
  else if (gst_structure_has_name (s, "flux-checkpoint") &&
           gst_structure_get_boolean (s, "final", &final) && final)
    self->events->saved (gst_structure_get_string (s, "location"), self->data);
}

/* Nothing more comes after it: `ended` may free the training. */
static gboolean
end (Training *self, const GError *error)
{
  self->watch = 0;
  gst_element_set_state (self->pipeline, GST_STATE_NULL);
  self->events->ended (error, self->data);
  return G_SOURCE_REMOVE;
}

static gboolean
on_message (GstBus *bus, GstMessage *message, gpointer data)
{
  Training *self = data;
  g_autoptr (GError) error = NULL;

  switch (GST_MESSAGE_TYPE (message)) {
    case GST_MESSAGE_ELEMENT:
      on_element (self, gst_message_get_structure (message));
      break;
    case GST_MESSAGE_APPLICATION:
      on_picture (self, gst_message_get_structure (message));
      break;
    case GST_MESSAGE_PROGRESS:
      on_progress (self, message);
      break;
    case GST_MESSAGE_EOS:
      return end (self, NULL);
    case GST_MESSAGE_ERROR:
      gst_message_parse_error (message, &error, NULL);
      return end (self, error);
    default:
      break;
  }
  return G_SOURCE_CONTINUE;
}

/* ---- what goes to it ---- */

/* Sets properties of an element of the pipeline, up to NULL. */
static void G_GNUC_NULL_TERMINATED
set (Training *self, const char *name, const char *property, ...)
{
  GstElement *element = gst_bin_get_by_name (GST_BIN (self->pipeline), name);
  va_list args;

  va_start (args, property);
  g_object_set_valist (G_OBJECT (element), property, args);
  va_end (args);
  gst_object_unref (element);
}

static void
configure (Training *self, const TrainingSettings *s, const char *prompt)
{
  g_autofree char *latents = g_strconcat (s->output, ".latents", NULL);
  g_autofree char *texts = g_strconcat (s->output, ".texts.safetensors", NULL);
  GstCaps *size = gst_caps_new_simple ("video/x-raw", "width", G_TYPE_INT, s->width,
      "height", G_TYPE_INT, s->height, NULL);

  set (self, "dataset", "location", s->folder, NULL);
  set (self, "crop", "width", s->width, "height", s->height, NULL);
  set (self, "vae", "model", s->model, "cache-location", latents, NULL);
  set (self, "embed", "text-model", s->model, "location", texts, "max-sequence-length",
      (guint)s->tokens, NULL);
  set (self, "train", "model", s->model, "location", s->output, "max-steps", s->steps,
      "learning-rate", s->learning_rate, NULL);
  set (self, "preview", "every-steps", s->every, "prompt", prompt, "max-sequence-length",
      (guint)s->tokens, NULL);
  set (self, "size", "caps", size, NULL);
  gst_caps_unref (size);
}

Training *
training_new (const TrainingSettings *settings, const char *prompt,
    const TrainingEvents *events, gpointer data, GError **error)
{
  GstElement *pipeline =
      gst_parse_launch_full (LINE, NULL, GST_PARSE_FLAG_FATAL_ERRORS, error);
  GstAppSinkCallbacks callbacks = {.new_sample = on_sample};
  Training *self;
  GstElement *pictures;
  GstBus *bus;

  if (pipeline == NULL)
    return NULL;
  self = g_new0 (Training, 1);
  self->pipeline = pipeline;
  self->preview = gst_bin_get_by_name (GST_BIN (pipeline), "preview");
  self->events = events;
  self->data = data;
  configure (self, settings, prompt);
  pictures = gst_bin_get_by_name (GST_BIN (pipeline), "pictures");
  gst_app_sink_set_callbacks (GST_APP_SINK (pictures), &callbacks, pipeline, NULL);
  gst_object_unref (pictures);
  bus = gst_element_get_bus (pipeline);
  self->watch = gst_bus_add_watch (bus, on_message, self);
  gst_object_unref (bus);
  /* If it fails, the bus has an error that says why. */
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  return self;
}

void
training_set_picture (Training *self, const char *prompt, guint64 seed, double scale)
{
  g_object_set (self->preview, "prompt", prompt, "seed", seed, "lora-scale", scale, NULL);
}

void
training_stop (Training *self)
{
  gst_element_send_event (self->pipeline, gst_event_new_eos ());
}

void
training_free (Training *self)
{
  if (self == NULL)
    return;
  if (self->watch != 0)
    g_source_remove (self->watch);
  gst_element_set_state (self->pipeline, GST_STATE_NULL);
  g_queue_clear_full (&self->described, (GDestroyNotify)gst_structure_free);
  gst_object_unref (self->preview);
  gst_object_unref (self->pipeline);
  g_free (self);
}
