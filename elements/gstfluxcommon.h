/* gstfluxcommon.h: what the elements share: enums, errors, progress.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gst/gst.h>

#include "flux/error.h"
#include "flux/files/weights-cache.h"
#include "kernels/fx.h"

G_BEGIN_DECLS

/* Registers an enum of the plugin's API at the first call; values is static. */
GType gst_flux_enum_register (gsize *once, const gchar *name, const GEnumValue *values);

/* Enums of properties; the values are those of kernels/fx.h. */

/* GstFluxQuantization: none, nf4, nf4-double, int8 as fx_qtype. */
#define GST_TYPE_FLUX_QUANTIZATION (gst_flux_quantization_get_type ())
GType gst_flux_quantization_get_type (void);
/* GstFluxTextQuantization: none, int8, nf4 as fx_qtype. */
#define GST_TYPE_FLUX_TEXT_QUANTIZATION (gst_flux_text_quantization_get_type ())
GType gst_flux_text_quantization_get_type (void);
/* GstFluxComputeDtype: auto as FX_N_DTYPES, float32, bfloat16, float16 as fx_dtype. */
#define GST_TYPE_FLUX_COMPUTE_DTYPE (gst_flux_compute_dtype_get_type ())
GType gst_flux_compute_dtype_get_type (void);
/* GstFluxDtype: float32, bfloat16, float16 as fx_dtype. */
#define GST_TYPE_FLUX_DTYPE (gst_flux_dtype_get_type ())
GType gst_flux_dtype_get_type (void);

#define GST_FLUX_PARAM_READY                                                             \
  (G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY)
#define GST_FLUX_PARAM_PLAYING                                                           \
  (G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_PLAYING)
#define GST_FLUX_PARAM_READ (G_PARAM_READABLE | G_PARAM_STATIC_STRINGS)

/* The same property in several elements. */
GParamSpec *gst_flux_param_spec_device (void);
GParamSpec *gst_flux_param_spec_compute_dtype (void); /* initially FX_N_DTYPES */
GParamSpec *gst_flux_param_spec_text_quantization (void);
GParamSpec *gst_flux_param_spec_max_sequence_length (void);
GParamSpec *gst_flux_param_spec_weights_cache (void); /* "auto" */
GParamSpec *gst_flux_param_spec_strict (void);        /* initially TRUE */

/* Creates a backend for the properties `device` ("auto", "cpu", "cuda", "cuda:N") and
 * compute-dtype of an element, and tells it as gst_flux_tell_device() does. */
fx_backend *gst_flux_backend_new (
    GstElement *element, const gchar *device, fx_dtype compute, GError **error);
/* Where an element computes, in its debug category. fallback, which is taken: why auto is
 * the CPU (flux_backend_choose()), or NULL; a warning where a person may want to know. */
void gst_flux_tell_device (GstElement *element, const fx_backend *b, GError *fallback);

/* Posts error as a GST_MESSAGE_ERROR with the domain and code that fit it, and the field
 * "flux-error" (FluxError's nick) in its details, with "needed-bytes", "free-bytes" and
 * "hint" when a device has too little memory; takes error. FLUX_ERROR_CANCELLED is
 * not posted: somebody asked for it. */
#define gst_flux_post_error(element, error)                                              \
  gst_flux_post_message (GST_ELEMENT_CAST (element), GST_MESSAGE_ERROR, error, __FILE__, \
      GST_FUNCTION, __LINE__)
/* The same as a warning: the element goes on. */
#define gst_flux_post_warning(element, error)                                            \
  gst_flux_post_message (GST_ELEMENT_CAST (element), GST_MESSAGE_WARNING, error,         \
      __FILE__, GST_FUNCTION, __LINE__)
/* What a cache of weights (NULL: none) has to tell, if anything. */
#define gst_flux_post_cache_warning(element, cache)                                      \
  G_STMT_START                                                                           \
  {                                                                                      \
    if ((cache) != NULL && (cache)->warning != NULL)                                     \
      gst_flux_post_warning (element, g_steal_pointer (&(cache)->warning));              \
  }                                                                                      \
  G_STMT_END
void gst_flux_post_message (GstElement *element, GstMessageType type, GError *error,
    const gchar *file, const gchar *function, gint line);

/* One activity that posts GST_MESSAGE_PROGRESS: START, CONTINUE on whole-percent change,
 * then COMPLETE, CANCELED or ERROR; the structure has an extra field `percent` (int).
 *
 * gst-launch-1.0 does not go to PLAYING between START and COMPLETE: an activity must end
 * before its result is pushed downstream, or start in PLAYING. */
typedef struct {
  GstElement *element;
  const gchar *code; /* "open", "quantize", "encode", "train", "save", "sample",
                      * "download", "push" */
  gint *cancel;      /* atomic; non-zero stops the activity. May be NULL */
  gint percent;      /* last posted, -1: none */
} GstFluxProgress;

void gst_flux_progress_init (
    GstFluxProgress *self, GstElement *element, const gchar *code, gint *cancel);
/* A FluxProgressFunc; data is the GstFluxProgress. FALSE when it is cancelled. percent
 * below 0 posts nothing. */
gboolean gst_flux_progress_update (const char *what, gint percent, gpointer data);
/* Ends what was started; error: why it failed, or NULL. Post the error first. */
void
gst_flux_progress_end (GstFluxProgress *self, const gchar *text, const GError *error);

G_END_DECLS
