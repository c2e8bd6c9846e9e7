/* gstfluxsamplersrc.c: pictures from prompts. SPDX-License-Identifier: LGPL-2.1-or-later
 */
/**
 * SECTION:element-fluxsamplersrc
 * @title: fluxsamplersrc
 *
 * Samples pictures from a FLUX.1 model, with adapters. The size is negotiated: any
 * multiple of 16 each way, by default the size that the model was trained at. With the
 * same seed a picture is the one that diffusers draws with
 * generator=torch.manual_seed(seed).
 *
 * Picture n has seed + n, and n is its number on the stream's time line: seeking to a
 * frame gives the same picture as playing up to it. A framerate of 0/1 means one still.
 *
 * ## Previews
 * With `every-steps` the source shows how the fluxtrainsink of its pipeline (linked or
 * not) comes along: pictures by the resident model with the adapter as it is, at the
 * first step and every that many steps. The source is live then, all pictures have the
 * same seed, and EOS comes when training ends. Training waits for a picture, and is not
 * changed by it in any bit. `prompt`, `seed`, `steps`, `guidance`, `loras` and
 * `lora-scale` may change while it runs; a `lora-scale` of 0 shows the model without the
 * adapter.
 *
 * ## Messages
 * `flux-sample`, an element message for each picture: `prompt` (string), `seed`
 * (guint64), `frame` (guint64), `width`, `height`, `steps` (gint), `guidance`,
 * `lora-scale` (gdouble);
 * in a preview also `step` (guint64), the training step. The same goes downstream as
 * tags: description (the prompt) and comment.
 *
 * `flux-adapter`, for each adapter when it is loaded: `location`, `format` (string, who
 * writes such files), `layers` (guint, that it changes), `tensors` (guint, in the file),
 * `left-out` (guint, of them, when strict is FALSE).
 *
 * Progress messages: download, open and sample.
 *
 * ## The Hugging Face Hub
 * `model` and each of `loras` may be hf://user/name[@revision][/path]. What is needed of
 * them is downloaded before the first picture, into the cache that Python's
 * huggingface_hub shares; flux/hub/hub.h has its environment variables.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 fluxsamplersrc model=FLUX.1-dev loras=mucha.safetensors prompt="a puppy
 * in a pond, alphonse mucha style" num-buffers=1 ! video/x-raw,width=512,height=768 !
 * pngenc ! filesink location=puppy.png
 * ]| A picture with a LoRA.
 * |[
 * gst-launch-1.0 fluxsamplersrc model=FLUX.1-dev quantization=none merge=true
 * loras="mucha.safetensors:0.8,inks.safetensors:0.4" prompt="a puppy" num-buffers=1 !
 * pngenc ! filesink location=puppy.png
 * ]| One with two, added to the weights.
 * |[
 * gst-launch-1.0 -e fluxcachesrc location=mucha.cache ! fluxtrainsink model=FLUX.1-dev
 * location=mucha.safetensors fluxsamplersrc every-steps=50 prompt="ornate fox" ! queue !
 * videoconvert ! autovideosink
 * ]| Trains, and shows a fox every 50 steps.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxsamplersrc-private.h"

GST_DEBUG_CATEGORY (gst_flux_sampler_src_debug);
#define GST_CAT_DEFAULT gst_flux_sampler_src_debug

#define DEFAULT_SIDE 1024
#define SIDE_STEP 16

static GstStaticPadTemplate src_template =
    GST_STATIC_PAD_TEMPLATE ("src", GST_PAD_SRC, GST_PAD_ALWAYS,
        GST_STATIC_CAPS ("video/x-raw, format = (string) RGB, "
                         "width = (int) [ 16, 16384, 16 ], "
                         "height = (int) [ 16, 16384, 16 ], "
                         "framerate = (fraction) [ 0/1, MAX ], "
                         "pixel-aspect-ratio = (fraction) 1/1, "
                         "colorimetry = (string) sRGB"));

#define gst_flux_sampler_src_parent_class parent_class
G_DEFINE_TYPE_WITH_CODE (GstFluxSamplerSrc, gst_flux_sampler_src, GST_TYPE_FLUX_SOURCE,
    G_IMPLEMENT_INTERFACE (GST_TYPE_PRESET, NULL) GST_DEBUG_CATEGORY_INIT (
        gst_flux_sampler_src_debug, "fluxsamplersrc", 0, "FLUX sampler"))
GST_ELEMENT_REGISTER_DEFINE (
    fluxsamplersrc, "fluxsamplersrc", GST_RANK_NONE, GST_TYPE_FLUX_SAMPLER_SRC);

/* ---- caps ---- */

static GstCaps *
gst_flux_sampler_src_fixate (GstBaseSrc *base, GstCaps *caps)
{
  GstFluxSamplerSrc *self = GST_FLUX_SAMPLER_SRC (base);
  gint side = self->vae.sample_size >= SIDE_STEP ? self->vae.sample_size : DEFAULT_SIDE;
  GstStructure *s;

  caps = gst_caps_make_writable (caps);
  s = gst_caps_get_structure (caps, 0);
  gst_structure_fixate_field_nearest_int (s, "width", side);
  gst_structure_fixate_field_nearest_int (s, "height", side);
  gst_structure_fixate_field_nearest_fraction (s, "framerate", 1, 1);
  return GST_BASE_SRC_CLASS (parent_class)->fixate (base, caps);
}

static gboolean
gst_flux_sampler_src_set_caps (GstBaseSrc *base, GstCaps *caps)
{
  GstFluxSamplerSrc *self = GST_FLUX_SAMPLER_SRC (base);

  return gst_video_info_from_caps (&self->video, caps);
}

/* What the size that is asked for should have been, or NULL. */
static GError *
explain_size (GstCaps *wanted)
{
  const GstStructure *s = gst_caps_is_any (wanted) || gst_caps_is_empty (wanted)
                              ? NULL
                              : gst_caps_get_structure (wanted, 0);
  gint width = SIDE_STEP, height = SIDE_STEP;

  if (s == NULL)
    return NULL;
  gst_structure_get_int (s, "width", &width);
  gst_structure_get_int (s, "height", &height);
  if (width % SIDE_STEP == 0 && height % SIDE_STEP == 0)
    return NULL;
  return g_error_new (FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "A picture of %dx%d cannot be made: both sides must be multiples of %d, such as "
      "%dx%d.",
      width, height, SIDE_STEP, MAX (width / SIDE_STEP, 1) * SIDE_STEP,
      MAX (height / SIDE_STEP, 1) * SIDE_STEP);
}

/* The base class says no more than "not negotiated". */
static gboolean
gst_flux_sampler_src_negotiate (GstBaseSrc *base)
{
  GstCaps *wanted;
  GError *error;

  /* The size that the model was trained at is known with the model. What goes wrong is
   * told by create(), the base class would call it a failure to negotiate. */
  gst_flux_sampler_src_fetch (GST_FLUX_SAMPLER_SRC (base));
  if (GST_BASE_SRC_CLASS (parent_class)->negotiate (base))
    return TRUE;
  wanted = gst_pad_peer_query_caps (GST_BASE_SRC_PAD (base), NULL);
  error = wanted != NULL ? explain_size (wanted) : NULL;
  if (error != NULL)
    gst_flux_post_error (base, error);
  gst_clear_caps (&wanted);
  return FALSE;
}

/* ---- time ---- */

/* A still (0/1) lasts a second, as far as time lines go. */
static GstClockTime
time_of (GstFluxSamplerSrc *self, guint64 frame)
{
  gint n = GST_VIDEO_INFO_FPS_N (&self->video), d = GST_VIDEO_INFO_FPS_D (&self->video);

  return n > 0 ? gst_util_uint64_scale (frame, (guint64)d * GST_SECOND, n)
               : frame * GST_SECOND;
}

static gint
get_num_buffers (GstFluxSamplerSrc *self)
{
  gint n;

  g_object_get (self, "num-buffers", &n, NULL);
  return n;
}

/* G_MAXUINT64: endless. */
static guint64
count_frames (GstFluxSamplerSrc *self)
{
  gint n = get_num_buffers (self);

  if (self->every_steps > 0)
    return G_MAXUINT64;
  if (GST_VIDEO_INFO_FPS_N (&self->video) == 0 && self->video.finfo != NULL)
    return 1;
  if (n >= 0)
    return (guint64)n;
  return self->n_prompts > 0 ? self->n_prompts : G_MAXUINT64;
}

static gboolean
gst_flux_sampler_src_is_seekable (GstBaseSrc *base)
{
  return GST_FLUX_SAMPLER_SRC (base)->every_steps == 0;
}

static gboolean
gst_flux_sampler_src_do_seek (GstBaseSrc *base, GstSegment *segment)
{
  GstFluxSamplerSrc *self = GST_FLUX_SAMPLER_SRC (base);
  gint n = GST_VIDEO_INFO_FPS_N (&self->video), d = GST_VIDEO_INFO_FPS_D (&self->video);

  if (segment->rate < 0)
    return FALSE;
  segment->time = segment->start;
  /* The frame that is shown at that time. */
  self->frame =
      n > 0 ? gst_util_uint64_scale (segment->position, n, (guint64)d * GST_SECOND)
            : segment->position / GST_SECOND;
  return TRUE;
}

static gboolean
gst_flux_sampler_src_query (GstBaseSrc *base, GstQuery *query)
{
  GstFluxSamplerSrc *self = GST_FLUX_SAMPLER_SRC (base);
  GstFormat format;
  guint64 frames;

  switch (GST_QUERY_TYPE (query)) {
    case GST_QUERY_DURATION:
      gst_query_parse_duration (query, &format, NULL);
      frames = count_frames (self);
      if (format == GST_FORMAT_TIME && frames != G_MAXUINT64) {
        gst_query_set_duration (query, format, (gint64)time_of (self, frames));
        return TRUE;
      }
      break;
    case GST_QUERY_LATENCY:
      if (self->every_steps > 0) {
        /* Stamped when they are done. */
        gst_query_set_latency (query, TRUE, 0, GST_CLOCK_TIME_NONE);
        return TRUE;
      }
      break;
    default:
      break;
  }
  return GST_BASE_SRC_CLASS (parent_class)->query (base, query);
}

/* ---- life ---- */

/* In READY already, so that the trainer knows of it in PAUSED. */
static void
add_preview (GstFluxSamplerSrc *self)
{
  GstFluxShared *shared;

  if (self->every_steps == 0 || self->preview != NULL)
    return;
  shared = gst_flux_shared_get (GST_ELEMENT (self));
  self->preview = gst_flux_preview_new (shared, self->trainer, self->every_steps);
  gst_flux_shared_unref (shared);
}

static gboolean
start (GstFluxSamplerSrc *self)
{
  GError *error = NULL;

  g_atomic_int_set (&self->unlocked, FALSE);
  gst_flux_hub_init (&self->hub, GST_ELEMENT (self));
  self->refused = FALSE;
  self->frame = 0;
  gst_video_info_init (&self->video);
  if (!gst_flux_sampler_src_prepare (self, &error) ||
      (self->preview != NULL && !gst_flux_preview_attach (self->preview, &error))) {
    g_clear_pointer (&self->prompts, g_strfreev);
    g_clear_pointer (&self->path, g_free);
    self->n_prompts = 0;
    gst_flux_post_error (self, error);
    return FALSE;
  }
  if (self->preview != NULL && self->model == NULL)
    gst_flux_preview_get_vae (self->preview, &self->vae);
  return TRUE;
}

static void
stop (GstFluxSamplerSrc *self)
{
  g_clear_pointer (&self->painter, gst_flux_painter_free);
  g_clear_pointer (&self->cache, flux_weights_cache_free);
  g_clear_pointer (&self->merged, g_free);
  g_clear_pointer (&self->path, g_free);
  g_hash_table_remove_all (self->adapters);
  if (self->preview != NULL)
    gst_flux_preview_detach (self->preview);
  g_clear_pointer (&self->prompts, g_strfreev);
  self->n_prompts = 0;
  memset (&self->vae, 0, sizeof self->vae);
}

static GstStateChangeReturn
gst_flux_sampler_src_change_state (GstElement *element, GstStateChange transition)
{
  GstFluxSamplerSrc *self = GST_FLUX_SAMPLER_SRC (element);
  GstStateChangeReturn ret;

  if (transition == GST_STATE_CHANGE_NULL_TO_READY)
    add_preview (self);
  /* Not in the base class's start(), to whose failure it would add an error. */
  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED && !start (self))
    return GST_STATE_CHANGE_FAILURE;
  ret = GST_ELEMENT_CLASS (parent_class)->change_state (element, transition);
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY || ret == GST_STATE_CHANGE_FAILURE)
    stop (self);
  if (transition == GST_STATE_CHANGE_READY_TO_NULL)
    g_clear_pointer (&self->preview, gst_flux_preview_free);
  return ret;
}

static gboolean
gst_flux_sampler_src_unlock (GstBaseSrc *base)
{
  GstFluxSamplerSrc *self = GST_FLUX_SAMPLER_SRC (base);

  g_atomic_int_set (&self->unlocked, TRUE);
  gst_flux_hub_set_cancelled (&self->hub, TRUE);
  if (self->preview != NULL)
    gst_flux_preview_set_flushing (self->preview, TRUE);
  return TRUE;
}

static gboolean
gst_flux_sampler_src_unlock_stop (GstBaseSrc *base)
{
  GstFluxSamplerSrc *self = GST_FLUX_SAMPLER_SRC (base);

  g_atomic_int_set (&self->unlocked, FALSE);
  gst_flux_hub_set_cancelled (&self->hub, FALSE);
  if (self->preview != NULL)
    gst_flux_preview_set_flushing (self->preview, FALSE);
  return TRUE;
}

static GstFlowReturn
gst_flux_sampler_src_create (GstPushSrc *push, GstBuffer **buffer)
{
  GstFluxSamplerSrc *self = GST_FLUX_SAMPLER_SRC (push);
  GstFlowReturn ret;
  gint n;

  *buffer = NULL;
  if (self->frame >= count_frames (self))
    return GST_FLOW_EOS;
  gst_object_sync_values (GST_OBJECT (self), time_of (self, self->frame));
  ret = gst_flux_sampler_src_fetch (self);
  if (ret == GST_FLOW_OK)
    ret = gst_flux_sampler_src_paint (self, buffer);
  if (ret != GST_FLOW_OK)
    return ret;
  if (self->preview == NULL) {
    GST_BUFFER_PTS (*buffer) = time_of (self, self->frame);
    GST_BUFFER_DURATION (*buffer) =
        time_of (self, self->frame + 1) - GST_BUFFER_PTS (*buffer);
  }
  GST_BUFFER_OFFSET (*buffer) = self->frame;
  GST_BUFFER_OFFSET_END (*buffer) = self->frame + 1;
  self->frame++;
  /* The base class ends by itself then, and does not ask us again. */
  n = get_num_buffers (self);
  if (self->preview != NULL && n >= 0 && self->frame >= (guint64)n)
    gst_flux_preview_retire (self->preview);
  return GST_FLOW_OK;
}

/* Whatever ends the stream (also GST_FLOW_EOS from downstream, of which the base class
 * does not tell us): the training must not wait for us any more. */
static GstPadProbeReturn
eos_probe (GstPad *pad, GstPadProbeInfo *info, gpointer data)
{
  GstFluxSamplerSrc *self = data;

  if (GST_EVENT_TYPE (GST_PAD_PROBE_INFO_EVENT (info)) == GST_EVENT_EOS &&
      self->preview != NULL)
    gst_flux_preview_retire (self->preview);
  return GST_PAD_PROBE_OK;
}

static void
gst_flux_sampler_src_finalize (GObject *object)
{
  gst_flux_sampler_src_free_properties (GST_FLUX_SAMPLER_SRC (object));
  g_hash_table_unref (GST_FLUX_SAMPLER_SRC (object)->adapters);
  G_OBJECT_CLASS (parent_class)->finalize (object);
}

static void
gst_flux_sampler_src_class_init (GstFluxSamplerSrcClass *klass)
{
  GstElementClass *element_class = GST_ELEMENT_CLASS (klass);
  GstBaseSrcClass *src_class = GST_BASE_SRC_CLASS (klass);

  G_OBJECT_CLASS (klass)->finalize = gst_flux_sampler_src_finalize;
  gst_flux_sampler_src_install_properties (klass);

  gst_element_class_set_static_metadata (element_class, "FLUX sampler",
      "Source/Video/Image", "Samples pictures from a FLUX.1 model",
      "gst-flux <gst-flux@localhost>");
  gst_element_class_add_static_pad_template (element_class, &src_template);

  src_class->negotiate = GST_DEBUG_FUNCPTR (gst_flux_sampler_src_negotiate);
  src_class->fixate = GST_DEBUG_FUNCPTR (gst_flux_sampler_src_fixate);
  src_class->set_caps = GST_DEBUG_FUNCPTR (gst_flux_sampler_src_set_caps);
  src_class->is_seekable = GST_DEBUG_FUNCPTR (gst_flux_sampler_src_is_seekable);
  src_class->do_seek = GST_DEBUG_FUNCPTR (gst_flux_sampler_src_do_seek);
  src_class->query = GST_DEBUG_FUNCPTR (gst_flux_sampler_src_query);
  element_class->change_state = GST_DEBUG_FUNCPTR (gst_flux_sampler_src_change_state);
  src_class->unlock = GST_DEBUG_FUNCPTR (gst_flux_sampler_src_unlock);
  src_class->unlock_stop = GST_DEBUG_FUNCPTR (gst_flux_sampler_src_unlock_stop);
  GST_PUSH_SRC_CLASS (klass)->create = GST_DEBUG_FUNCPTR (gst_flux_sampler_src_create);
}

static void
gst_flux_sampler_src_init (GstFluxSamplerSrc *self)
{
  gst_flux_sampler_src_init_properties (self);
  gst_flux_hub_init (&self->hub, GST_ELEMENT (self));
  self->adapters = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  gst_base_src_set_format (GST_BASE_SRC (self), GST_FORMAT_TIME);
  gst_pad_add_probe (GST_BASE_SRC_PAD (self), GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM,
      eos_probe, self, NULL);
}
