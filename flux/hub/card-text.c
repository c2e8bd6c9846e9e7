/* flux/hub/card-text.c: a model card's README.md. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include <string.h>

#include "flux/files/json-cursor.h"
#include "flux/hub/card-private.h"

#define FLUX_DEV "black-forest-labs/FLUX.1-dev"
#define LICENSE "https://huggingface.co/" FLUX_DEV "/blob/main/LICENSE.md"
enum { ROWS = 10 };

/* A JSON string is a YAML string in double quotes (YAML 1.2, 1.3); what is not UTF-8 is
 * replaced. */
static void
append_yaml (GString *to, const char *text)
{
  g_autofree char *valid = g_utf8_make_valid (text, -1);

  flux_json_append_string (to, valid);
}

/* On one line, between backquotes or in a cell of a table. */
static void
append_code (GString *to, const char *text)
{
  g_autofree char *valid = g_utf8_make_valid (text, -1);

  for (char *p = valid; *p != '\0'; p++) {
    if (*p == '`')
      *p = '\'';
    else if (*p == '|')
      *p = '/';
    else if (g_ascii_iscntrl (*p))
      *p = ' ';
  }
  g_string_append_printf (to, "`%s`", valid);
}

static void
append_head (
    GString *to, const FluxCard *self, const FluxCardText *text, const char *trigger)
{
  g_string_append (to, "---\nlibrary_name: diffusers\npipeline_tag: text-to-image\n");
  if (text->base_model != NULL) {
    g_string_append (to, "base_model: ");
    append_yaml (to, text->base_model);
    g_string_append (to, "\nbase_model_relation: adapter\n");
  }
  if (g_strcmp0 (text->base_model, FLUX_DEV) == 0)
    g_string_append (to, "license: other\n"
                         "license_name: flux-1-dev-non-commercial-license\n"
                         "license_link: " LICENSE "\n");
  g_string_append (to, "tags:\n- text-to-image\n- diffusers\n- lora\n- flux\n- gst-flux\n"
                       "- template:sd-lora\n");
  if (trigger != NULL) {
    g_string_append (to, "instance_prompt: ");
    append_yaml (to, trigger);
    g_string_append_c (to, '\n');
  }
  if (self->pictures->len > 0)
    g_string_append (to, "widget:\n");
  for (guint i = 0; i < self->pictures->len; i++) {
    const FluxCardPicture *picture = self->pictures->pdata[i];
    g_autofree char *path = flux_card_picture_path (self, i);

    g_string_append (to, "- text: ");
    append_yaml (to, picture->prompt);
    g_string_append (to, "\n  output:\n    url: ");
    append_yaml (to, path);
    g_string_append_c (to, '\n');
  }
  g_string_append (to, "---\n\n");
}

static void
append_use (GString *to, const FluxCardText *text, const char *trigger)
{
  const char *base = text->base_model != NULL ? text->base_model : FLUX_DEV;
  g_autofree char *prompt = g_strconcat (
      "...", trigger != NULL ? ", " : "", trigger != NULL ? trigger : "", NULL);
  g_autofree char *valid = g_utf8_make_valid (prompt, -1);
  g_autoptr (GString) quoted = g_string_new (NULL);

  flux_json_append_string (quoted, valid);
  g_string_append (to, "## Use\n\nWith diffusers:\n\n```python\nimport torch\n"
                       "from diffusers import FluxPipeline\n\n");
  g_string_append_printf (to,
      "pipe = FluxPipeline.from_pretrained(\"%s\", torch_dtype=torch.bfloat16)\n"
      "pipe.load_lora_weights(\"%s\"",
      base, text->repo);
  if (text->weights != NULL)
    g_string_append_printf (to, ", weight_name=\"%s\"", text->weights);
  g_string_append_printf (
      to, ")\npipe.to(\"cuda\")\nimage = pipe(%s).images[0]\n```\n\n", quoted->str);
  g_string_append (to, "With gst-flux:\n\n```sh\n");
  g_string_append_printf (to,
      "gst-flux sample model=hf://%s loras=hf://%s%s%s prompt='...'\n```\n\n", base,
      text->repo, text->weights != NULL ? "/" : "",
      text->weights != NULL ? text->weights : "");
}

/* Tenths of the training, each with its mean. */
static void
append_loss (GString *to, const FluxCard *self)
{
  const FluxCardLoss *l = (const FluxCardLoss *)self->losses->data;
  guint n = self->losses->len, rows = MIN (ROWS, n);
  double low = 0, high = 0;

  if (n == 0)
    return;
  g_string_append (to, "## Loss\n\n");
  for (guint i = 0; i < n; i++) {
    low = i == 0 ? l[i].loss : MIN (low, l[i].loss);
    high = i == 0 ? l[i].loss : MAX (high, l[i].loss);
  }
  if (n > 1)
    g_string_append_printf (to,
        "![Loss of each step, and its running mean](loss.png)\n\nFrom step "
        "%" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT
        "; the lowest line is at %.4f, the highest at %.4f.\n\n",
        l[0].step, l[n - 1].step, low, high);
  g_string_append (to, "| steps | mean loss |\n|---|---|\n");
  for (guint row = 0; row < rows; row++) {
    guint from = (guint)((guint64)n * row / rows),
          end = (guint)((guint64)n * (row + 1) / rows);
    double sum = 0;

    for (guint i = from; i < end; i++)
      sum += l[i].loss;
    g_string_append_printf (to,
        "| %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT " | %.4f |\n", l[from].step,
        l[end - 1].step, sum / (end - from));
  }
  if (self->paired->len == 2) {
    double before = g_array_index (self->paired, FluxCardLoss, 0).loss;
    double after = g_array_index (self->paired, FluxCardLoss, 1).loss;

    g_string_append_printf (to,
        "\nOver the same pictures, noise and sigmas: %.4f before, %.4f after.\n", before,
        after);
  }
  g_string_append_c (to, '\n');
}

static void
append_settings (GString *to, const FluxCard *self)
{
  if (self->settings->len == 0)
    return;
  g_string_append (to, "## Settings\n\n| setting | value |\n|---|---|\n");
  for (guint i = 0; i + 1 < self->settings->len; i += 2) {
    g_string_append (to, "| ");
    append_code (to, self->settings->pdata[i]);
    g_string_append (to, " | ");
    append_code (to, self->settings->pdata[i + 1]);
    g_string_append (to, " |\n");
  }
  g_string_append_c (to, '\n');
}

char *
flux_card_write_text (const FluxCard *self, const FluxCardText *text)
{
  GString *to = g_string_new (NULL);
  g_autofree char *found =
      text->trigger_words == NULL ? flux_card_trigger_words (self) : NULL;
  const char *trigger = text->trigger_words != NULL ? text->trigger_words : found;
  const char *name = strchr (text->repo, '/');

  append_head (to, self, text, trigger);
  g_string_append_printf (to, "# %s\n\n", name != NULL ? name + 1 : text->repo);
  if (self->pictures->len > 0)
    g_string_append (to, "<Gallery />\n\n");
  if (text->base_model != NULL)
    g_string_append_printf (to, "A LoRA for [%s](https://huggingface.co/%s)",
        text->base_model, text->base_model);
  else
    g_string_append (to, "A LoRA for a FLUX.1 model");
  g_string_append (to, ", trained with gst-flux.\n\n");
  if (trigger != NULL) {
    g_string_append (to, "## Trigger words\n\nWrite ");
    append_code (to, trigger);
    g_string_append (to, " in the prompt.\n\n");
  }
  append_use (to, text, trigger);
  append_loss (to, self);
  append_settings (to, self);
  return g_string_free (to, FALSE);
}
