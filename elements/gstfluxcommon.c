/* gstfluxcommon.c: what the elements share: enums, errors, progress.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxcommon.h"

#include <string.h>

#include "flux/model.h"

#define DEFAULT_DEVICE "auto"
#define DEFAULT_TEXT_QUANTIZATION FX_Q_INT8
#define DEFAULT_MAX_SEQUENCE_LENGTH 512

GType
gst_flux_enum_register (gsize *once, const gchar *name, const GEnumValue *values)
{
  if (g_once_init_enter (once)) {
    GType type = g_enum_register_static (name, values);

    gst_type_mark_as_plugin_api (type, 0);
    g_once_init_leave (once, type);
  }
  return *once;
}

GType
gst_flux_quantization_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {FX_Q_NONE, "Floats, as in the file", "none"},
      {FX_Q_NF4, "4-bit NormalFloat, blocks of 64, as bitsandbytes", "nf4"},
      {FX_Q_NF4_DOUBLE, "The same with 8-bit block scales", "nf4-double"},
      {FX_Q_INT8, "8-bit integers in weights and activations", "int8"},
      {FX_Q_FP8, "8-bit floats in weights and activations, for GPUs of sm_89 and newer",
          "fp8"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxQuantization", values);
}

GType
gst_flux_text_quantization_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {FX_Q_NONE, "Floats, as in the file", "none"},
      {FX_Q_INT8, "8-bit rows, as LLM.int8", "int8"},
      {FX_Q_NF4, "4-bit NormalFloat, blocks of 64, as bitsandbytes", "nf4"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxTextQuantization", values);
}

GType
gst_flux_dtype_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {FX_F32, "32-bit floats", "float32"},
      {FX_BF16, "bfloat16", "bfloat16"},
      {FX_F16, "16-bit floats", "float16"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxDtype", values);
}

GType
gst_flux_compute_dtype_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
      {FX_N_DTYPES,
          "What suits the device: float32 on the CPU, bfloat16 on a GPU, "
          "float16 on a GPU without bfloat16 (compute capability 7.5)",
          "auto"},
      {FX_F32, "32-bit floats", "float32"},
      {FX_BF16, "bfloat16", "bfloat16"},
      {FX_F16, "16-bit floats, with sums that may overflow kept in 32 bits", "float16"},
      {0, NULL, NULL},
  };
  return gst_flux_enum_register (&type, "GstFluxComputeDtype", values);
}

GParamSpec *
gst_flux_param_spec_compute_dtype (void)
{
  return g_param_spec_enum ("compute-dtype", "Compute Dtype",
      "Type of activations; the CPU computes in float32 only",
      GST_TYPE_FLUX_COMPUTE_DTYPE, FX_N_DTYPES, GST_FLUX_PARAM_READY);
}

GParamSpec *
gst_flux_param_spec_device (void)
{
  return g_param_spec_string ("device", "Device",
      "Where to compute: auto (a usable GPU, else the CPU), cpu, cuda or cuda:N",
      DEFAULT_DEVICE, GST_FLUX_PARAM_READY);
}

GParamSpec *
gst_flux_param_spec_text_quantization (void)
{
  return g_param_spec_enum ("text-quantization", "Text Quantization",
      "Weights of the T5 text encoder's linear layers; CLIP stays as it is",
      GST_TYPE_FLUX_TEXT_QUANTIZATION, DEFAULT_TEXT_QUANTIZATION, GST_FLUX_PARAM_READY);
}

GParamSpec *
gst_flux_param_spec_max_sequence_length (void)
{
  return g_param_spec_uint ("max-sequence-length", "Max Sequence Length",
      "Tokens of a prompt after padding and truncation (tokens, 1 to 4096)", 1, 4096,
      DEFAULT_MAX_SEQUENCE_LENGTH, GST_FLUX_PARAM_READY);
}

GParamSpec *
gst_flux_param_spec_weights_cache (void)
{
  return g_param_spec_string ("weights-cache", "Weights Cache",
      "Where quantised weights are kept for the next start, which then copies them: auto "
      "(gst-flux/weights in the user's cache folder, for files of 256 MiB or more), off, "
      "or a folder (for files of any size)",
      "auto", GST_FLUX_PARAM_READY);
}

GParamSpec *
gst_flux_param_spec_strict (void)
{
  return g_param_spec_boolean ("strict", "Strict",
      "Tensors of an adapter that fit no layer are an error; FALSE: a warning, and "
      "it goes on without them",
      TRUE, GST_FLUX_PARAM_READY);
}

fx_backend *
gst_flux_backend_new (
    GstElement *element, const gchar *device, fx_dtype compute, GError **error)
{
  GError *fallback = NULL;
  fx_backend *b;
  int number;

  if (!flux_device_parse (device != NULL ? device : DEFAULT_DEVICE, &number, error))
    return NULL;
  b = flux_backend_choose (number, compute, &fallback, error);
  if (b != NULL)
    gst_flux_tell_device (element, b, fallback);
  else
    g_clear_error (&fallback);
  return b;
}

void
gst_flux_tell_device (GstElement *element, const fx_backend *b, GError *fallback)
{
  GstElementFactory *factory = gst_element_get_factory (element);
  GstDebugCategory *category = GST_CAT_DEFAULT;

  if (factory != NULL)
    GST_DEBUG_CATEGORY_GET (category, GST_OBJECT_NAME (factory));
  if (strcmp (b->name, "cuda") == 0)
    GST_CAT_INFO_OBJECT (category, element, "computes on cuda:%d (%s) in %s", b->device,
        b->plans_key != NULL ? b->plans_key : b->name, fx_dtype_name (b->compute));
  else
    GST_CAT_INFO_OBJECT (category, element, "computes on the CPU in %s%s%s",
        fx_dtype_name (b->compute), fallback != NULL ? ": " : "",
        fallback != NULL ? fallback->message : "");
  if (fallback != NULL && !g_error_matches (fallback, FLUX_ERROR, FLUX_ERROR_NOT_FOUND))
    gst_flux_post_warning (element, fallback);
  else
    g_clear_error (&fallback);
}

/* ---- errors ---- */

static const struct {
  const gchar *nick;
  gint resource, stream, library; /* one of them, else 0 */
} error_codes[] = {
    [FLUX_ERROR_NOT_FOUND] = {"not-found", GST_RESOURCE_ERROR_NOT_FOUND, 0, 0},
    [FLUX_ERROR_READ] = {"read", GST_RESOURCE_ERROR_READ, 0, 0},
    [FLUX_ERROR_WRITE] = {"write", GST_RESOURCE_ERROR_WRITE, 0, 0},
    [FLUX_ERROR_NO_SPACE] = {"no-space", GST_RESOURCE_ERROR_NO_SPACE_LEFT, 0, 0},
    [FLUX_ERROR_FORMAT] = {"format", 0, GST_STREAM_ERROR_FORMAT, 0},
    [FLUX_ERROR_MISMATCH] = {"mismatch", 0, GST_STREAM_ERROR_WRONG_TYPE, 0},
    [FLUX_ERROR_SETTINGS] = {"settings", GST_RESOURCE_ERROR_SETTINGS, 0, 0},
    [FLUX_ERROR_DEVICE] = {"device", 0, 0, GST_LIBRARY_ERROR_FAILED},
    [FLUX_ERROR_NUMERIC] = {"numeric", 0, GST_STREAM_ERROR_FAILED, 0},
    [FLUX_ERROR_CANCELLED] = {"cancelled", 0, 0, 0},
};

/* The fields of an error's details; three more where a device's memory is short. */
static GstStructure *
error_details (const GError *error, const gchar *nick)
{
  GstStructure *s =
      gst_structure_new ("details", "flux-error", G_TYPE_STRING, nick, NULL);
  guint64 needed, available;
  const gchar *hint;

  if (flux_error_get_room (error, &needed, &available, &hint))
    gst_structure_set (s, "needed-bytes", G_TYPE_UINT64, needed, "free-bytes",
        G_TYPE_UINT64, available, "hint", G_TYPE_STRING, hint, NULL);
  return s;
}

void
gst_flux_post_message (GstElement *element, GstMessageType type, GError *error,
    const gchar *file, const gchar *function, gint line)
{
  GQuark domain = GST_LIBRARY_ERROR;
  gint code = GST_LIBRARY_ERROR_FAILED;
  const gchar *nick = "other";
  gchar *debug;

  if (error->domain == FLUX_ERROR && (guint)error->code < G_N_ELEMENTS (error_codes)) {
    nick = error_codes[error->code].nick;
    if (error_codes[error->code].resource != 0) {
      domain = GST_RESOURCE_ERROR;
      code = error_codes[error->code].resource;
    } else if (error_codes[error->code].stream != 0) {
      domain = GST_STREAM_ERROR;
      code = error_codes[error->code].stream;
    }
  }
  if (!g_error_matches (error, FLUX_ERROR, FLUX_ERROR_CANCELLED)) {
    debug = g_strdup_printf ("%s (%s %d), in state %s", nick,
        g_quark_to_string (error->domain), error->code,
        gst_element_state_get_name (GST_STATE (element)));
    gst_element_message_full_with_details (element, type, domain, code,
        g_strdup (error->message), debug, file, function, line,
        error_details (error, nick));
  }
  g_error_free (error);
}

/* ---- progress ---- */

void
gst_flux_progress_init (
    GstFluxProgress *self, GstElement *element, const gchar *code, gint *cancel)
{
  self->element = element;
  self->code = code;
  self->cancel = cancel;
  self->percent = -1;
}

static void
progress_post (GstFluxProgress *self, GstProgressType type, const gchar *text)
{
  GstMessage *message =
      gst_message_new_progress (GST_OBJECT (self->element), type, self->code, text);

  gst_structure_set (gst_message_writable_structure (message), "percent", G_TYPE_INT,
      MAX (self->percent, 0), NULL);
  gst_element_post_message (self->element, message);
}

gboolean
gst_flux_progress_update (const char *what, gint percent, gpointer data)
{
  GstFluxProgress *self = data;
  GstProgressType type;
  gchar *text;

  if (self->cancel != NULL && g_atomic_int_get (self->cancel))
    return FALSE;
  if (percent >= 0 && percent != self->percent) {
    text = g_strdup_printf ("%s (%d %%)", what, percent);
    type = self->percent < 0 ? GST_PROGRESS_TYPE_START : GST_PROGRESS_TYPE_CONTINUE;
    self->percent = percent;
    progress_post (self, type, text);
    g_free (text);
  }
  return TRUE;
}

void
gst_flux_progress_end (GstFluxProgress *self, const gchar *text, const GError *error)
{
  if (self->percent < 0)
    return;
  if (error == NULL) {
    self->percent = 100;
    progress_post (self, GST_PROGRESS_TYPE_COMPLETE, text);
  } else if (g_error_matches (error, FLUX_ERROR, FLUX_ERROR_CANCELLED)) {
    progress_post (self, GST_PROGRESS_TYPE_CANCELED, text);
  } else {
    progress_post (self, GST_PROGRESS_TYPE_ERROR, text);
  }
  self->percent = -1;
}
