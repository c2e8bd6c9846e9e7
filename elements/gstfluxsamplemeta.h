/* gstfluxsamplemeta.h: which sample of the data set a buffer is. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * A GstCustomMeta named "GstFluxSampleMeta" without tags: queue, videoconvert, videoflip
 * and the like carry it along. From the data set to the trainer every element adds what
 * it knows, so that captions and cached results follow an image by content, never by
 * position. Fields of its structure (applications read them with
 * gst_custom_meta_get_structure()); absent fields are unset:
 *
 *   filename       string   for messages: path, or "file.parquet row 3"        datasetsrc
 *   caption        string   UTF-8; may be empty                                datasetsrc
 *   index          uint64   of the image in its data set, before shuffling     datasetsrc
 *   epoch          uint     from 0                                             datasetsrc
 *   key            string   64 hex digits: SHA-256 of the decoded pixels as    imagedec
 *                           PIL's image.tobytes() gives them in the file's own
 *                           mode, after the EXIF orientation
 *   background     uint     0xRRGGBB that alpha was composited over; unset     imagedec
 *                           when the image has no transparency
 *   source-width, source-height   int  pixels of the decoded image             imagedec
 *   scaled-width, scaled-height   int  the whole image after resampling        imagecrop
 *   crop-x, crop-y, crop-width, crop-height   int  the part of the scaled      imagecrop
 *                           image that this buffer is (before the flip)
 *   flip           boolean  mirrored left to right, after the crop             imagecrop
 *   variant, n-variants   uint  which of how many crops of the same image      imagecrop
 */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

#define GST_FLUX_SAMPLE_META_NAME "GstFluxSampleMeta"

/* The structure in C. Unset: NULL, 0; has_background FALSE; n_variants 1, as
 * GST_FLUX_SAMPLE_INIT says. */
typedef struct {
  const gchar *filename;
  const gchar *caption;
  guint64 index;
  guint epoch;
  const gchar *key;
  gboolean has_background;
  guint32 background;
  gint source_width, source_height;
  gint scaled_width, scaled_height;
  gint crop_x, crop_y, crop_width, crop_height;
  gboolean flip;
  guint variant, n_variants;
} GstFluxSample;

#define GST_FLUX_SAMPLE_INIT                                                             \
  {                                                                                      \
    .n_variants = 1                                                                      \
  }

/* Registers the meta; idempotent, called by plugin_init and by set(). */
void gst_flux_sample_meta_register (void);

/* Reads the meta of buffer. FALSE, and an unset sample, when it has none. The strings
 * belong to the meta: they are valid as long as the buffer is held and not written to. */
gboolean gst_flux_sample_meta_get (GstBuffer *buffer, GstFluxSample *sample);

/* Writes (or replaces) the meta of a writable buffer; strings are copied and may come
 * from the meta being replaced. */
void gst_flux_sample_meta_set (GstBuffer *buffer, const GstFluxSample *sample);

/* What was done to the pixels that `key` names, as a string such as
 * "640x480>683x512+85+0,512x512,flip,bg=ffffff". key and view together identify the
 * pixels of the buffer: a cache is keyed by both. g_free() it. */
gchar *gst_flux_sample_dup_view (const GstFluxSample *sample);

G_END_DECLS
